"""Tokens to hidden states: sizes (`config`), attention (`layers`), what architectures share (`trunk`), the published
one (`paper`), ours (`cells`, `regions`, `matching`, `region_model`). `build` makes one by name.
"""
