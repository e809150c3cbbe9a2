"""What a robot needs: raw thermal frames in, detections out. No torch, no ROS."""

from cgdet_core.runtime.card import load_card, ModelCard
from cgdet_core.runtime.detector import Detector
from cgdet_core.runtime.normalization import Normalization, normalize
from cgdet_core.runtime.postprocess import Detections

__all__ = ['Detections', 'Detector', 'load_card', 'ModelCard', 'Normalization', 'normalize']
