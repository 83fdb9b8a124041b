"""Other trackers, for those who live there: what the runner records goes to TensorBoard, MLflow or W&B as well."""
