"""CGDet: small thermal detectors, trained with the help of RGB, deployed on thermal alone."""
