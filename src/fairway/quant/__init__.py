"""Quantization after training: a scheme per tensor (`plan`), row scales (`clip`), Hessians, GPTQ, and the way back."""
