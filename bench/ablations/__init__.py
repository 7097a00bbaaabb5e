"""The tables of docs/results.md: their arms, and the page that is made of them."""
