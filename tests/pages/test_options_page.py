"""docs/options.md is what the fields of the configuration say today."""

from __future__ import annotations

from pages.doc_pages import read

from cluster.config.fields import DERIVED
from cluster.config.options import options
from cluster.recipes.options_page import page
from cluster.recipes.registry import RECIPES


def test_the_page_is_current() -> None:
    assert read("docs/options.md") == page(), "write it anew: the command is in the head of the module that makes it"


def test_every_option_of_every_recipe_is_on_it() -> None:
    shown = page()
    for recipe in RECIPES.values():
        config = recipe()
        for option in options(config):
            stage, _, field = option.name.partition(".")
            common = f"`--STAGE.{field}`" if stage in config.stages else ""
            if option.name not in DERIVED:
                assert f"`--{option.name}`" in shown or (common and common in shown), option.name
