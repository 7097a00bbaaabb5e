"""What sources share: images and captions by folder, by table, by split."""
