"""aim-video: frozen image models, adapted into video action recognisers."""
