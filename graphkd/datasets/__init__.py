"""Data modules: training, validation and test batches of images and labels."""

from graphkd.datasets.digits import DigitsData as DigitsData
