"""The science: a model that says in one sentence what differs between two similar images.

Read in this order: `config` (the sizes), `layers` (attention, blocks), `trunk` (the parts every architecture shares),
`paper` (the published architecture), `objectives` (what is trained), `generate` (how sentences are made).
"""
