"""Frames and annotations for training and evaluation."""
