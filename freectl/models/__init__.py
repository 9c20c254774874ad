"""Model families and a pipeline opened for work; knows no method."""
