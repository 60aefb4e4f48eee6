"""From a file to the first answer, on the machines that networks are shipped to.

    subjects    the networks, each as .dcz and as the dense ONNX file that it decodes to
    worker      Python's way, in a process of its own; measure.mjs is that of Node and of browsers
    demo        the network of edge/js/demo

``python -m compressor.benchmarks.edge`` measures; the result is ``results/edge.json``.
"""
