"""The sky as pixels: reading images, finding a survey's files, window geometry and scene rendering. No torch here."""
