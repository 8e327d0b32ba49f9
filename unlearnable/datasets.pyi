from .data.shapes import Shapes as Shapes
