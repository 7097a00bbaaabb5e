"""The machines: joins the model (idc) and the data (shards) into runs on Ray and DeepSpeed."""
