"""What the READMEs show: pictures, sheets and tables of the embedded model."""
