"""ComfyUI and this pack as the scripts use them: started, with shipped models, given batches."""
