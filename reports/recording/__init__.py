"""The run as pytest plug-ins see it: what is selected, and what goes on record."""
