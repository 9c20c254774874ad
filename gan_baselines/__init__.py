"""The trained side of the comparison: DCGAN, Pix2Pix, CycleGAN and kin. Imports nothing of `freectl`."""
