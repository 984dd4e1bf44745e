"""The graph engine: a model file's normal form and weights as one OpenVINO model, without Keras."""
