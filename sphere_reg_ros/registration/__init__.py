"""From one X-ray and one CT to one pose, with a covariance and a decision."""
