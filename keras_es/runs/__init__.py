"""What a run of `train.py` is: settings, files, checkpoints, the loop."""
