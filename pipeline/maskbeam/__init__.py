"""maskbeam from Python: segments single pictures as a job does, without Beam.

    from maskbeam import load_model

    found = load_model("pets").segment("cat.jpg")
    print(found.area_fraction)          # {'pet': 0.31, 'background': 0.58, 'border': 0.11}
    found.mask                          # (H, W) class ids

Importing it changes nothing in the libraries that it uses. `prepare_process` sets them up as a job does; call it once
in programs that process untrusted files or many pictures.
"""

from pipeline.core.errors import EngineError, MaskbeamError, ModelError, OptionError, PictureError
from pipeline.core.process import prepare_process
from pipeline.segmenting.segmentation import Model, Segmentation, load_model

__all__ = [
    "EngineError",
    "MaskbeamError",
    "Model",
    "ModelError",
    "OptionError",
    "PictureError",
    "Segmentation",
    "load_model",
    "prepare_process",
]
