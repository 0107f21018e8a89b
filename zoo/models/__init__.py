"""One file per architecture; `zoo.registry` finds them."""
