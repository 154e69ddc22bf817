"""Is an attribution right? Agreement between methods, faithfulness to what the model does, and checks of inputs.

Influences and a pipeline come in, scores go out. It imports the methods and runs the model again where a score needs it.
"""
