"""One artefact against many countermeasures, resumable."""
