"""pytest plug-ins that select the cells of a run and record the results."""
