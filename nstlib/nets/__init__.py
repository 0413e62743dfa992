"""Networks: layers and forward passes, no files, no training."""
