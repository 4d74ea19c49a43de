"""A fit in several processes: who they are, how they meet, and what they decide together."""
