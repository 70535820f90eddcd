"""Clips: films in containers that FFmpeg reads, animations, and numbered frames, in and out."""
