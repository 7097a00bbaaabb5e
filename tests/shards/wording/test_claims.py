import pytest

from shards.wording.claims import says_change, says_no_change


@pytest.mark.parametrize(
    ("sentence", "change"),
    [
        ("the car has left", True),
        ("there are no visible differences between the images", False),
        ("the two images look the same", False),
        ("nothing was modified", False),
        ("nothing in the second image appears to have changed", False),
        ("the right image does not differ from the left image", False),
        ("the scene is unchanged.", False),
        ("images identical", False),
        ("nothing", False),
        ("it is the same picture", False),
        ("the same photo", False),
        ("Same as before.", False),
        ("everything stays the same", False),
        ("everything is as before", False),
        ("it hasn't changed", False),
        ("the pictures don\u2019t differ", False),
        ("both images are equal", False),
        ("identical pictures", False),
        ("nothing happened", False),
        ("it is the same scene with one more car", True),
        ("the same picture, but darker", True),
        ("the photo is not the same", True),
        ("the bird on the left is not as brown", True),
        ("the same colour but a longer beak", True),
        ("nothing on the table now but a cup was there", True),
        ("no change in colour but a longer beak", True),
        ("there are no noticeable changes here other than a man near the building", True),
        ("no other differences, the beak is longer", True),
        ("the red cube is gone", True),
        ("a man has left , the rest of the image is unchanged", True),
        ("", None),
        (" \n", None),
    ],
)
def test_says_change(sentence, change):
    assert says_change(sentence) is change
    assert says_no_change(sentence) is (change is False)
