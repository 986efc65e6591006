"""SiQ-VL: a small vision-language model from SigLIP and Qwen2.5, trained stage by stage."""
