from shards.wording.frequent_words import FEWEST, NameFinder, frequent_words


def test_words_are_adjectives_and_nouns_that_some_captions_have_and_not_all():
    captions = ["a photo of a red cube"] * 6 + ["a photo of a blue ball"] * 8 + ["a photo of a dog"] * (FEWEST - 1)
    assert frequent_words(captions, 10) == ["ball", "blue", "cube", "red"]
    assert frequent_words(captions, 3) == ["ball", "blue", "cube"]
    assert frequent_words(captions[::-1], 10) == ["ball", "blue", "cube", "red"]


def test_places_and_pictures_are_no_looks():
    captions = ["the red cube at the top left of the second picture"] * FEWEST + ["a dog"] * 2 * FEWEST
    assert frequent_words(captions, 10) == ["cube", "red"]


def test_a_caption_counts_once_for_each_of_its_words():
    assert frequent_words(["red and red and red and red"] * (FEWEST - 1) + ["a dog"] * FEWEST, 10) == []
    assert frequent_words(["red and red"] * FEWEST + ["a dog"] * FEWEST, 10) == ["dog", "red"]


def test_names_are_found_as_whole_words():
    finder = NameFinder(["red cube", "cube", "Sooty Albatross"])
    assert finder.numbers(["The red cube, it is gone"]) == {0, 1}
    assert finder.numbers(["a dark-red cubes", "a sooty", "albatross"]) == set()
    assert finder.numbers(["a sooty albatross."]) == {2}
