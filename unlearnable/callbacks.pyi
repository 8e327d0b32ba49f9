from .engine.callbacks import TensorBoard as TensorBoard
