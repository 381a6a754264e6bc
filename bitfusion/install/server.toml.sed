s|^# folder may be read-only. Every line is commented out and shows the default, but state_dir, whose$|# folder may be read-only. Lines that are commented out show the default, but state_dir's, whose|
s|^# Address of the control plane. Beyond loopback it needs keys.*|# Address of the control plane. The service makes its keys (`bitfusion server init`) when it first starts.|
s|^#listen = .*|listen = "0.0.0.0:56001"|
