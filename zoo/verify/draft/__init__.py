"""The first draft of a definition, from a published model: what can be read off it, written as a contributor would.

`follow` reads each module's own code with torch.fx, one level at a time, into steps; `share` makes one function of the
modules that have the same steps; `write` writes them down. What is not known stands as a comment.
"""
