"""The machines: joins the model (idc) and the data (shards) into runs on Ray and DeepSpeed.

Read in this order: `train` (the command), `pipeline` (data, training, scores, report), `training.stage` and
`training.step` (the loop), `training.engine` (DeepSpeed).
"""
