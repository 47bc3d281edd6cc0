"""A simulated market whose truth is known. Everything made here is marked SIMULATED by its connection's name."""
