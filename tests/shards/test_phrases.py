from shards.phrases import FEWEST, PhraseFinder, frequent_phrases, noun_phrases


def test_phrases_are_runs_of_adjectives_and_nouns():
    assert noun_phrases("a photo of a large red rubber cube and a small ball") == [
        "photo", "large red rubber cube", "small ball",
    ]  # fmt: skip
    assert noun_phrases("animal1 has a white belly , animal2 is dark .") == ["animal1", "white belly", "animal2"]
    assert noun_phrases("nothing is there") == ["nothing"] or noun_phrases("nothing is there") == []


def test_names_are_what_some_captions_have_and_not_all():
    captions = ["a photo of a red cube"] * 6 + ["a photo of a blue ball"] * 8 + ["a photo of a dog"] * (FEWEST - 1)
    assert frequent_phrases(captions, 10) == ["blue ball", "red cube"]
    assert frequent_phrases(captions, 1) == ["blue ball"]
    assert frequent_phrases(captions[::-1], 10) == ["blue ball", "red cube"]


def test_names_are_found_as_whole_words():
    finder = PhraseFinder(["red cube", "cube", "Sooty Albatross"])
    assert finder.numbers(["The red cube, it is gone"]) == {0, 1}
    assert finder.numbers(["a dark-red cubes", "a sooty", "albatross"]) == set()
    assert finder.numbers(["a sooty albatross."]) == {2}
