"""The science: a model that says in one sentence what differs between two similar images.

Read in this order: `model.config` (the sizes), `model.layers` (attention, blocks), `model.trunk` (the parts that all
architectures share), `model.paper` (the published one), `losses.objectives` (what is trained), `captioning.decoding`
(how sentences are made).
"""
