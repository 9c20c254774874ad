"""Files that diffusers' `custom_pipeline=` takes, each naming one pipeline class of the installed package."""
