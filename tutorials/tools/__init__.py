"""Build and check the tutorials: `python -m tutorials.tools build | check | pages`, see tutorials/README.md.

A tutorial is a Python file in jupytext's percent form. Its notebook is made from it by running it, and its page of the
documentation from the notebook, without running anything.
"""
