"""Every form of input against every form of output.

    networks    what is saved: torchvision's networks, a U-Net, a recurrent one
    forms       how: a state_dict, TorchScript, ONNX of either exporter, ...
    cells       what becomes of each output of one run, loaded and run in its own runtime
    tables      the README's summary and the full table of docs/inputs.md

``python -m compressor.benchmarks.matrix`` runs it and writes both.
"""
