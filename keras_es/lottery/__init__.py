"""Lottery tickets in evolution: sparse networks that train from their first values."""

from keras_es.lottery.connectivity import Connectivity, connectivity
from keras_es.lottery.find import find
from keras_es.lottery.flatness import Flatness, flatness
from keras_es.lottery.pictures import plot_connectivity, plot_flatness, plot_rounds
from keras_es.lottery.ticket import Ticket
from keras_es.lottery.transfer import Transferred, transfer

__all__ = [
    "Connectivity",
    "Flatness",
    "Ticket",
    "Transferred",
    "connectivity",
    "find",
    "flatness",
    "plot_connectivity",
    "plot_flatness",
    "plot_rounds",
    "transfer",
]
