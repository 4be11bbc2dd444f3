"""Stages of training and evaluation."""
