"""Images: headers, decoding, orientation, sizes, masks of objects, fingerprints and near duplicates."""
