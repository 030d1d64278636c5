"""Optimizers: which parameter goes where (`rules`), Muon, AdamW, schedules, clipping and the average of the weights."""
