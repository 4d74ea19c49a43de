"""Where pixels lie: on the sky, on the pixels of another image, in patches of one grid."""
