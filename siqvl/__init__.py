"""SiQ-VL: a small vision-language model from SigLIP and Qwen, trained stage by stage."""
