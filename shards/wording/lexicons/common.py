"""Words of any picture: colours, numbers, sizes, comparatives, directions."""

from shards.wording.lexicons.lexicon import families, opposites

COLORS = families(
    "color",
    "black | white | gray,grey,silver | brown,tan,beige,chestnut,bronze,copper,taupe | red,maroon,burgundy,crimson |"
    "orange,rust | yellow,gold,golden | green,olive,lime,emerald | blue,turquoise,teal,navy | purple,violet,lavender |"
    "pink",
    near="black-gray black-brown black-blue white-gray white-yellow white-brown white-pink gray-brown gray-blue"
    " gray-green brown-red brown-orange brown-yellow brown-green red-orange red-pink red-purple orange-yellow"
    " orange-pink yellow-green green-blue blue-purple purple-pink",
)
TINTS = families(
    "color",
    "reddish,pinkish | orangeish,orangish | yellowish | greenish | bluish,blueish | purplish | brownish |"
    "grayish,greyish | blackish | whitish",
    near="reddish-orangeish reddish-brownish reddish-purplish orangeish-yellowish orangeish-brownish"
    " yellowish-greenish yellowish-whitish yellowish-brownish greenish-bluish greenish-grayish greenish-brownish"
    " bluish-purplish bluish-grayish"
    " brownish-grayish brownish-blackish grayish-blackish grayish-whitish bluish-blackish purplish-blackish",
)
SIZES = opposites("size", "large,big,huge small,little,tiny", "long short", "tall short", "wide,broad narrow",
                  "thick thin", "fat,plump,chubby slim,slender,skinny,lean", tag="ADJ")  # fmt: skip
COMPARATIVES = opposites(
    "comparative", "larger,bigger smaller,tinier", "longer shorter", "taller shorter", "thicker thinner",
    "wider,broader narrower", "darker lighter,paler", "brighter duller", "fatter,plumper,chubbier,stouter slimmer,"
    "skinnier,leaner", "closer,nearer farther,further", "higher lower", "older younger", tag="ADJ",
)  # fmt: skip
AMOUNTS = opposites("amount", "more less", "more fewer", "many few")
SHADES = opposites("shade", "dark light,pale", "bright,vibrant,vivid dull,muted", tag="ADJ")
DIRECTIONS = opposites(
    "direction", "left right", "leftmost rightmost", "top bottom", "upper lower", "above below", "inside outside",
    "forward backward", "horizontal vertical", "horizontally vertically",
)  # fmt: skip
