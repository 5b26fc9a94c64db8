"""The folder of a run: which checkpoints are in it, and which of them are good. Needs no torch.

runs/exp1/
  run.lock                      held by the process that trains
  step-0000001200/
    state-0.safetensors         the tensors of rank 0
    state-0.json                the rest of its state, a tagged tree that names the tensors
    run.json                    what is the same for all ranks: classes, config, versions
    COMMIT                      every other file with its size and hash; written last
  quarantine/step-0000001300/   a checkpoint whose bytes are not those of its COMMIT
"""
